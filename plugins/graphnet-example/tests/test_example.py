import graphnet_example
from graphnet.testing import LayerTests


class TestExample(LayerTests):
    layer = graphnet_example.Example()
