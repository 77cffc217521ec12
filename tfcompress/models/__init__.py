"""Reference architectures that suit the device."""
