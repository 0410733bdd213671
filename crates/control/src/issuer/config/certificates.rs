//! Certificates in the issuer's configuration: those that it signs, and its own.
//!
//! Deliberately absent: the rest of the configuration, which holds these.

use std::path::PathBuf;

use axum::http::Uri;
use identity::Subject;
use identity::certificate::SpiffeId;
use rustls_pki_types::DnsName;
use serde::Deserialize;

use super::{Certificates, Errors, Tls, rotation};

/// The life of a workload's certificate in seconds unless configured: DESIGN §6.
const DEFAULT_CERTIFICATE_TTL: i64 = 3600;
/// Renewal at half time leaves some seconds for the asking; beyond a week, short-lived is no word for it.
const CERTIFICATE_TTL: std::ops::RangeInclusive<i64> = 10..=7 * 24 * 3600;
/// A year.
const DEFAULT_AUTHORITY_ROTATE: i64 = 365 * 24 * 3600;
/// An hour: whoever reads a bundle now and then shall have met the next authority before it signs.
const DEFAULT_AUTHORITY_LEAD: i64 = 3600;
/// Both the trust domain of SPIFFE IDs and the cluster's DNS domain, as most clusters have them.
const CLUSTER_DOMAIN: &str = "cluster.local";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    from: Option<TlsSource>,
    names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum TlsSource {
    Authority,
    Root,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCertificates {
    authority_file: Option<PathBuf>,
    trust_domain: Option<String>,
    cluster_domain: Option<String>,
    ttl: Option<i64>,
    rotate: Option<i64>,
    lead: Option<i64>,
    #[serde(default)]
    names: Vec<RawNames>,
    trust_bundle_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNames {
    service_account: String,
    names: Vec<String>,
}

impl RawTls {
    pub(super) fn build(
        self,
        url: Option<&str>,
        (authority, in_cluster): (bool, bool),
        errors: &mut Errors,
    ) -> Option<Tls> {
        let https = url.is_none_or(|url| url.starts_with("https:"));
        errors.check("url", (!https).then_some("must be https, since `tls` is given"));
        match (self.from, self.certificate_file, self.key_file) {
            (None, Some(certificate), Some(key)) if self.names.is_none() => Some(Tls::Files { certificate, key }),
            (Some(TlsSource::Authority), None, None) => {
                errors.check("tls.from", (!authority).then_some("authority needs `certificates`"));
                Some(Tls::Authority { names: names(self.names, url, errors) })
            }
            (Some(TlsSource::Root), None, None) => {
                errors.check("tls.from", (!in_cluster).then_some("root needs `kubernetes`, whose Secret holds it"));
                Some(Tls::Root { names: names(self.names, url, errors) })
            }
            _ => {
                errors.check("tls", Some("give certificate_file and key_file, or from: authority, or from: root"));
                None
            }
        }
    }
}

/// The names that are given, else the host of the issuer's URL.
fn names(given: Option<Vec<String>>, url: Option<&str>, errors: &mut Errors) -> Vec<String> {
    let names = given.unwrap_or_else(|| url.and_then(host_of).into_iter().collect());
    names.iter().for_each(|name| check_name("tls.names", name, errors));
    errors.check("tls.names", names.is_empty().then_some("must not be empty"));
    names
}

/// The host of a URL, without the brackets of an IPv6 address.
fn host_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn check_name(field: &str, name: &str, errors: &mut Errors) {
    let wrong = name.parse::<std::net::IpAddr>().is_err().then(|| wrong_dns_name(name)).flatten();
    errors.check(&format!("{field}: {name:?}"), wrong.map(|_| "must be a DNS name or an IP address"));
}

/// The files in this part of a configuration, which are the platform's to judge.
#[derive(Default)]
pub(super) struct Files {
    pub(super) authority: Option<PathBuf>,
    pub(super) trust_bundle: Option<PathBuf>,
}

impl RawCertificates {
    pub(super) fn take_files(&mut self) -> Files {
        Files { authority: self.authority_file.take(), trust_bundle: self.trust_bundle_file.take() }
    }

    pub(super) fn build(self, errors: &mut Errors) -> Option<Certificates> {
        let trust_domain = self.trust_domain.unwrap_or_else(|| CLUSTER_DOMAIN.to_owned());
        let anybody = Subject { namespace: "x".to_owned(), service_account: "x".to_owned() };
        if let Err(error) = SpiffeId::new(&trust_domain, anybody) {
            errors.0.push(format!("certificates.trust_domain: {error}"));
        }
        let cluster_domain = self.cluster_domain.unwrap_or_else(|| CLUSTER_DOMAIN.to_owned());
        errors.check("certificates.cluster_domain", wrong_dns_name(&cluster_domain));
        let ttl = self.ttl.unwrap_or(DEFAULT_CERTIFICATE_TTL);
        let ttl_wrong = (!CERTIFICATE_TTL.contains(&ttl)).then_some("must be from 10 seconds to a week, in seconds");
        errors.check("certificates.ttl", ttl_wrong);
        let times = (self.rotate.unwrap_or(DEFAULT_AUTHORITY_ROTATE), self.lead.unwrap_or(DEFAULT_AUTHORITY_LEAD));
        let rotation = rotation("certificates", times, ttl, errors);
        let names = self.names.into_iter().filter_map(|names| names.build(errors)).collect();
        Some(Certificates { trust_domain, cluster_domain, ttl, rotation, names })
    }
}

impl RawNames {
    fn build(self, errors: &mut Errors) -> Option<(Subject, Vec<String>)> {
        let account = &self.service_account;
        let subject = account.split_once('/').and_then(|(namespace, name)| Subject::new(namespace, name).ok());
        if subject.is_none() {
            errors.0.push(format!("certificates.names: {account:?} is no service account; write namespace/name"));
        }
        for name in &self.names {
            check_name("certificates.names", name, errors);
        }
        Some((subject?, self.names))
    }
}

fn wrong_dns_name(name: &str) -> Option<&'static str> {
    DnsName::try_from(name).is_err().then_some("must be a DNS name")
}
