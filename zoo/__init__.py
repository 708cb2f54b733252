"""The trained models that the article compares, and the corpus that they are trained on.

Importing the package, or any module of it but one family's own, imports no framework.
"""
