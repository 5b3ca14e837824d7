"""Problems: the domains that identities are judged on.

recipes   what is drawn, the edge recipes, and a domain made of both
options   every combination of options, as edge recipes
rows      a recipe, expanded into exact numbers; the kinds of rows
regions   where in its domain a row lies
targets   labels, soft targets, class weights
classes, scalars, layers, training   the domains themselves
large     their rows, again and again
draw      the choices of a drawn problem, as they follow from a seed (commands)
strategies  the same, made by Hypothesis (tests)
"""
