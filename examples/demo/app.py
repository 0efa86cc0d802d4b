"""The page of `keras-preact demo` as a Hugging Face Space."""
from keras_preact import demo

demo.page(demo.networks()).launch(theme=demo.THEME)
