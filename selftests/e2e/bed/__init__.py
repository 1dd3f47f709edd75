# SPDX-License-Identifier: GPL-2.0-or-later
"""A test bed of two virtual hosts that share a LUN, and guests inside them. See selftests/e2e/README."""
