"""What people look at: a run's page, runs compared, masks in 3D."""
