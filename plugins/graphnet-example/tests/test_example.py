from graphnet.testing import LayerTests
from graphnet_example import Example


class TestExample(LayerTests):
    layer = Example()
