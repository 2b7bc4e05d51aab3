//! Tells the compiler which interpreter it builds for: `Py_GIL_DISABLED` and `Py_3_x` are set here, and nowhere else.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(Py_GIL_DISABLED)");
    #[cfg(feature = "python")]
    {
        pyo3_build_config::use_pyo3_cfgs();
        pyo3_build_config::add_extension_module_link_args();
    }
}
