"""finr1: the Fin-R1 recipe, told by numbered notebooks; this package holds what more than one of them uses."""
