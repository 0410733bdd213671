//! Attacks on links between workloads, over real TLS; certificates that renew themselves.
