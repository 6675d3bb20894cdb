"""Statistics over arrays and groups: metrics, intervals, calibration, conformal sets, distances. Never sees AnnData."""
