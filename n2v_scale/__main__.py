"""``python -m n2v_scale``."""

from n2v_scale.cli import main

if __name__ == "__main__":
    main()
