//! What pods say of themselves, through the API server's proxy: no port is opened for it, and the right is `pods/proxy`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::server::get;
use crate::check::facts::{Asked, Facts, Probe, Probes};
use crate::check::issuer;
use crate::check::objects::{is_alive, sidecar_of};
use crate::check::scrape::Samples;

const ADMIN_PORT: u16 = 9901;
/// Pods asked at once: each is a connection of the API server's.
const AT_ONCE: usize = 8;

/// All pods of ours.
pub(super) async fn all(client: &Client, facts: &Facts) -> Probes {
    let ours = |pod: &&Pod| issuer::is_of(pod, "issuer") || issuer::is_of(pod, "injector");
    let system = facts.system_pods.iter().flatten().filter(ours);
    let sidecars = facts.pods.iter().flatten().filter(|pod| sidecar_of(pod).is_some());
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    for pod in system.chain(sidecars).filter(|pod| runs(pod)) {
        let (Some(namespace), Some(name)) = (pod.metadata.namespace.clone(), pod.metadata.name.clone()) else {
            continue;
        };
        let (client, room) = (client.clone(), room.clone());
        asking.spawn(async move {
            let _place = room.acquire().await;
            let probe = ask(&client, &namespace, &name).await;
            ((namespace, name), probe)
        });
    }
    asking.join_all().await.into_iter().collect()
}

/// Somebody who is only to be started cannot answer.
fn runs(pod: &Pod) -> bool {
    is_alive(pod) && pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
}

async fn ask(client: &Client, namespace: &str, name: &str) -> Probe {
    let path = |path: &str| format!("/api/v1/namespaces/{namespace}/pods/{name}:{ADMIN_PORT}/proxy/{path}");
    let (readyz, metrics) = (path("readyz"), path("metrics"));
    let (ready, metrics) = tokio::join!(get(client, &readyz), get(client, &metrics));
    let offset = metrics.as_ref().ok().and_then(|answer| answer.offset);
    let of_pod = |answer: Asked<super::server::Answer>| {
        answer.and_then(|answer| match refusal(&answer.text) {
            Some(why) => Err(why),
            None => Ok(answer),
        })
    };
    Probe {
        ready: Some(of_pod(ready).map(|answer| (answer.status == 200, answer.text))),
        metrics: Some(of_pod(metrics).map(|answer| Samples::parse(&answer.text))),
        offset,
    }
}

/// The API server's own answer, where it could not or would not ask the pod.
fn refusal(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    if value.get("kind")? != "Status" {
        return None;
    }
    Some(
        value
            .get("message")
            .and_then(serde_json::Value::as_str)
            .unwrap_or("the API server could not ask it")
            .to_owned(),
    )
}
