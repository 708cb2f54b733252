pytest_plugins = ["tests.tiny.fixtures"]
