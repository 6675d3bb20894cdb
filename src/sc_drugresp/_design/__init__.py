"""What a cohort allows to conclude: roles of columns, aliasing, the strictest split, the verdict."""
