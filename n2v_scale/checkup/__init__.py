"""What ``n2v-scale doctor`` looks at: what is seen is frozen, and judged by pure functions."""
