"""The suite: commands that measure optimizers, and the packages behind them."""

from bench.display import plain

plain.set_up()
