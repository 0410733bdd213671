//! Who may do what, as the API server decides it.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::api::PostParams;
use kube::{Api, Client};
use runtime::kubernetes::in_time;

use crate::check::facts::{Asked, Right};

/// Of the caller.
pub(super) async fn own(client: &Client, rights: Vec<Right>) -> Vec<(Right, Asked<bool>)> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut answers = Vec::new();
    for right in rights {
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes(&right)), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let answer = in_time(api.create(&PostParams::default(), &review)).await;
        answers.push((right, decided(answer.map(|review| review.status))));
    }
    answers
}

/// Of the service accounts of a namespace, with the groups that every service account is in.
pub(super) async fn of_accounts(client: &Client, namespace: &str, rights: Vec<Right>) -> Vec<(Right, Asked<bool>)> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
    let groups: Vec<_> = groups.into_iter().map(str::to_owned).collect();
    let mut answers = Vec::new();
    for right in rights {
        let spec = SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{}", right.account)),
            groups: Some(groups.clone()),
            resource_attributes: Some(attributes(&right)),
            ..Default::default()
        };
        let review = SubjectAccessReview { spec, ..Default::default() };
        let answer = in_time(api.create(&PostParams::default(), &review)).await;
        answers.push((right, decided(answer.map(|review| review.status))));
    }
    answers
}

fn attributes(right: &Right) -> ResourceAttributes {
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    ResourceAttributes {
        verb: some(right.verb),
        group: Some(right.group.to_owned()),
        resource: some(resource),
        subresource: some(subresource),
        namespace: right.namespace.clone(),
        name: some(right.name),
        ..Default::default()
    }
}

fn decided(answer: Result<Option<SubjectAccessReviewStatus>, runtime::kubernetes::ApiError>) -> Asked<bool> {
    let status = answer.map_err(|error| error.to_string())?;
    status.map(|status| status.allowed).ok_or_else(|| "the API server did not decide".to_owned())
}
