"""What surrounds the product: the DevStack plugin, and the lab of demo and tests."""
