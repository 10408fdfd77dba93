"""Maps: a space in two dimensions, with named clusters, outliers and typical images."""
