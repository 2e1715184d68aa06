"""`python -m vps_jax.weights > docs/weights.md`: the page of the table."""

from vps_jax.weights import catalogue

if __name__ == "__main__":
    print(catalogue.page(catalogue.entries()), end="")
