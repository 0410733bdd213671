//! The way to a process's admin listener: an HTTP client on this machine, or in a cluster the API server, with the rights of whoever asks.
//!
//! In a cluster figures and settings come through the pod's proxy (`pods/proxy`), decisions through a forwarded port
//! (`pods/portforward`), as sidecars show those to their own machine only. Deliberately absent: what is asked.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use runtime::http_client::{self, HttpClient};
use runtime::kubernetes::in_time;

/// Where every process of ours has its admin listener in a pod.
const ADMIN_PORT: u16 = 9901;
const ISSUER_PORT: u16 = 8443;
const ISSUERS: &str = "app.kubernetes.io/name=sidegate,app.kubernetes.io/component=issuer";

/// One of the two.
pub(super) enum Way {
    /// To URLs.
    Http(HttpClient),
    /// To pods, `NAMESPACE/NAME`.
    Pods(Client),
}

impl Way {
    /// What `path` has at the admin listener of a process.
    pub(super) async fn get(&self, process: &str, path: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Http(client) => get(client, &format!("{process}{path}")).await,
            Self::Pods(client) => proxied(client, process, ADMIN_PORT, path).await,
        }
    }

    /// The same of what is shown to the process's own machine only.
    pub(super) async fn get_nearby(&self, process: &str, path: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Http(client) => get(client, &format!("{process}{path}")).await,
            Self::Pods(client) => forwarded(client, process, path).await,
        }
    }

    /// An issuer's key set and its metrics, by its URL or, in a cluster, by the namespace that it runs in.
    pub(super) async fn issuer(
        &self,
        url: &str,
        namespace: &str,
    ) -> (Result<Vec<u8>, String>, Result<Vec<u8>, String>) {
        let client = match self {
            Self::Http(client) => {
                let (keys, metrics) = (format!("{url}/jwks"), format!("{url}/metrics"));
                return tokio::join!(get(client, &keys), get(client, &metrics));
            }
            Self::Pods(client) => client,
        };
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let all = in_time(api.list(&ListParams::default().labels(ISSUERS))).await;
        let pod = match all.map(|all| all.items.into_iter().find_map(|pod| runs(&pod).then_some(pod.metadata.name)?)) {
            Ok(Some(name)) => format!("{namespace}/{name}"),
            Ok(None) => return both(format!("no issuer runs in {namespace}")),
            Err(error) => return both(error.to_string()),
        };
        // The API server does not look at the certificate there; the keys are public.
        let keys = proxied(client, &pod, ISSUER_PORT, "/jwks");
        tokio::join!(keys, proxied(client, &pod, ADMIN_PORT, "/metrics"))
    }
}

fn both<A, B>(why: String) -> (Result<A, String>, Result<B, String>) {
    (Err(why.clone()), Err(why))
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

async fn get(client: &HttpClient, url: &str) -> Result<Vec<u8>, String> {
    let answer = client.get(url).await.map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(answer.body.to_vec()) } else { Err(format!("{url} answered {}", answer.status)) }
}

async fn proxied(client: &Client, pod: &str, port: u16, path: &str) -> Result<Vec<u8>, String> {
    let (namespace, name) = pod.split_once('/').unwrap_or_default();
    let scheme = if port == ISSUER_PORT { "https:" } else { "" };
    let url = format!("/api/v1/namespaces/{namespace}/pods/{scheme}{name}:{port}/proxy{path}");
    let request = axum::http::Request::get(url).body(Vec::new()).map_err(|error| error.to_string())?;
    let answer = in_time(client.request_text(request)).await;
    answer.map(String::into_bytes).map_err(|error| error.to_string())
}

async fn forwarded(client: &Client, pod: &str, path: &str) -> Result<Vec<u8>, String> {
    let (namespace, name) = pod.split_once('/').unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut forwarder = in_time(api.portforward(name, &[ADMIN_PORT])).await.map_err(|error| error.to_string())?;
    let stream = forwarder.take_stream(ADMIN_PORT).ok_or("the port is not forwarded")?;
    let answer = http_client::get_over(stream, &format!("http://127.0.0.1:{ADMIN_PORT}{path}")).await;
    forwarder.abort();
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(answer.body.to_vec()) } else { Err(format!("{pod} answered {}", answer.status)) }
}
