"""Problems: the domains that identities are judged on.

rows       a recipe, expanded into exact numbers: the kinds of rows       regions  where in its domain a row lies
recipes    what Hypothesis draws, edge recipes, and a domain made of both   targets  labels, soft targets, class weights
classes, scalars, layers, training    the domains themselves             large    their rows, again and again
sample     drawn problems without pytest
"""
