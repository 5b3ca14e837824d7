"""Problems: the domains that identities are judged on.

recipes   what Hypothesis draws, the edge recipes, and a domain made of both
options   every combination of options, as edge recipes
rows      a recipe, expanded into exact numbers; the kinds of rows
regions   where in its domain a row lies
targets   labels, soft targets, class weights
classes, scalars, layers, training   the domains themselves
large     their rows, again and again
sample    drawn problems without pytest
"""
