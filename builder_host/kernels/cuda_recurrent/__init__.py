"""Recurrent layers on GPUs: all steps in one cluster, or one kernel per step."""
