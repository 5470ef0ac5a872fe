"""Train and measure this package's method and other published methods under the same conditions."""
