"""Reading images: what a volume is, and how any address becomes one."""
