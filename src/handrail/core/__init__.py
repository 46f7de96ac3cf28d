"""The stages that touch the world, through ports alone, one file a stage."""
