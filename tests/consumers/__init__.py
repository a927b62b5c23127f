"""The component from outside: in other languages, installed, every argument through the plugin."""
