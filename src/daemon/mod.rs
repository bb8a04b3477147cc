//! Owns the cores: one data thread per resource, one control runtime; effects to drivers.
