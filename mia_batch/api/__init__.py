"""Audits from Python: `audit` of arrays, and `MembershipInference` with MindArmour's interface."""
