//! Objects as an API server gives them: what counts, what does not, and what is said of each.

use kube::api::ObjectMeta;

use super::*;

struct World {
    objects: AccessObjects,
    roles: watch::Sender<Seen<DynamicObject>>,
    grants: watch::Sender<Seen<DynamicObject>>,
}

fn seen(objects: Vec<DynamicObject>) -> Seen<DynamicObject> {
    let key =
        |object: &DynamicObject| (object.metadata.namespace.clone().unwrap(), object.metadata.name.clone().unwrap());
    let objects = objects.into_iter().map(|object| (key(&object), Arc::new(object))).collect();
    Seen { objects: Some(Arc::new(objects)), trouble: None }
}

fn object(kind: Kind, namespace: &str, name: &str, generation: i64, spec: Value) -> DynamicObject {
    let metadata = ObjectMeta {
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        generation: Some(generation),
        uid: Some(format!("{kind:?}-{namespace}-{name}")),
        ..ObjectMeta::default()
    };
    DynamicObject { types: None, metadata, data: json!({ "spec": spec }) }
}

fn role(generation: i64, table: &str) -> DynamicObject {
    let rules = json!([{"actions": ["select"], "tables": [table]}]);
    object(Kind::Role, "b", "orders", generation, json!({"service": "db", "postgres": {"user": "u", "rules": rules}}))
}

fn grant(name: &str, subject: &str, roles: &[&str]) -> DynamicObject {
    let subjects = json!([{"serviceAccount": subject, "namespace": subject}]);
    object(Kind::Grant, "b", name, 1, json!({"service": "db", "subjects": subjects, "roles": roles}))
}

impl World {
    fn new() -> Self {
        let nothing = Seen { objects: None, trouble: None };
        let (roles, of_roles) = watch::channel(nothing.clone());
        let (grants, of_grants) = watch::channel(nothing);
        Self { objects: AccessObjects { roles: of_roles, grants: of_grants, known: HashMap::new() }, roles, grants }
    }

    fn with(&mut self, roles: Vec<DynamicObject>, grants: Vec<DynamicObject>) -> (Snapshot, Vec<Judged>) {
        self.roles.send_replace(seen(roles));
        self.grants.send_replace(seen(grants));
        self.objects.assemble().unwrap()
    }
}

fn tables(snapshot: &Snapshot, subject: &str) -> Vec<String> {
    let subject = identity::Subject::new(subject, subject).unwrap();
    let granted = snapshot.granted(&subject, &"b/db".parse().unwrap());
    let of = |detail: &identity::access::AuthorizationDetail| match detail {
        identity::access::AuthorizationDetail::Postgresql(detail) => {
            detail.rules.iter().flat_map(|rule| rule.tables.clone()).collect()
        }
        identity::access::AuthorizationDetail::Http(_) => Vec::new(),
    };
    granted.iter().flat_map(of).collect()
}

fn verdict(judged: &[Judged], name: &str) -> Verdict {
    judged.iter().find(|object| object.name == name).unwrap().verdict.clone()
}

#[test]
fn nothing_is_known_before_both_kinds_were_listed() {
    let mut world = World::new();
    assert!(world.objects.assemble().is_none());
    world.roles.send_replace(seen(vec![role(1, "public.orders")]));
    assert!(world.objects.assemble().is_none(), "a grant may be on its way");
}

#[test]
fn a_broken_object_harms_nobody_else_and_stays_as_it_was() {
    let mut world = World::new();
    let grants = || vec![grant("g", "svc", &["orders"])];
    let (snapshot, judged) = world.with(vec![role(1, "public.orders")], grants());
    assert_eq!(tables(&snapshot, "svc"), ["public.orders"]);
    assert_eq!((verdict(&judged, "orders"), verdict(&judged, "g")), (Verdict::InForce, Verdict::InForce));
    let broken = || role(2, "orders without a schema");
    let (snapshot, judged) =
        world.with(vec![broken()], vec![grant("g", "svc", &["orders"]), grant("h", "other", &["reader"])]);
    assert_eq!(tables(&snapshot, "svc"), ["public.orders"], "as it last was right");
    assert!(
        matches!(verdict(&judged, "orders"), Verdict::Invalid { instead: Some(1), reasons } if reasons[0].contains("schema"))
    );
    assert_eq!(verdict(&judged, "h"), Verdict::InForce);
    let mut other = broken();
    other.metadata.uid = Some("another".to_owned());
    let (snapshot, judged) = world.with(vec![other], grants());
    assert!(tables(&snapshot, "svc").is_empty(), "one that was deleted and made anew has no better past");
    assert!(matches!(verdict(&judged, "orders"), Verdict::Invalid { instead: None, .. }));
    let mut fresh = World::new();
    assert!(
        tables(&fresh.with(vec![broken()], grants()).0, "svc").is_empty(),
        "what was never seen right opens nothing"
    );
}

#[test]
fn a_role_that_is_not_there_opens_nothing_and_is_told() {
    let mut world = World::new();
    let mut foreign = role(1, "public.secrets");
    foreign.metadata.name = Some("foreign".to_owned());
    foreign.data["spec"]["service"] = json!("elsewhere");
    let (snapshot, judged) =
        world.with(vec![role(1, "public.orders"), foreign], vec![grant("g", "svc", &["orders", "foreign", "gone"])]);
    assert_eq!(tables(&snapshot, "svc"), ["public.orders"]);
    let Verdict::RoleNotFound(what) = verdict(&judged, "g") else { panic!("{judged:?}") };
    assert!(what.len() == 2 && what[0].contains("elsewhere") && what[1].contains("no role `gone`"), "{what:?}");
    let (snapshot, _) = world.with(vec![], vec![grant("g", "svc", &["orders"])]);
    assert!(tables(&snapshot, "svc").is_empty(), "a deleted role ends");
}

/// Whatever stands in an object: it opens nothing by being wrong.
#[test]
fn ten_ways_to_be_wrong_open_nothing() {
    let rule = json!({"actions": ["select"], "tables": ["public.t"]});
    let postgres = |rules: Value| json!({"service": "db", "postgres": {"user": "u", "rules": rules}});
    let wrong = [
        json!(null),
        json!({}),
        json!({"service": "db"}),
        json!({"service": "other/db", "postgres": {"user": "u", "rules": [rule]}}),
        postgres(json!([])),
        postgres(json!([{"actions": ["SELECT"], "tables": ["public.t"]}])),
        postgres(json!([{"actions": ["select"], "tables": ["t"]}])),
        postgres(json!([{"actions": ["select"], "table": ["public.t"]}])),
        postgres(json!([{"actions": ["execute"], "tables": ["public.t"]}])),
        json!({"service": "db", "postgres": {"rules": [rule]}}),
        json!({"service": "db", "http": {"rules": [{"methods": ["get"], "paths": ["/"]}]}}),
        json!({"service": "db", "subjects": [{"serviceAccount": "svc", "namespace": "svc"}], "roles": ["admin"]}),
    ];
    for spec in wrong {
        let mut world = World::new();
        let broken = object(Kind::Role, "b", "orders", 1, spec.clone());
        let (snapshot, judged) = world.with(vec![broken], vec![grant("g", "svc", &["orders"])]);
        assert!(snapshot.granted(&identity::Subject::new("svc", "svc").unwrap(), &"b/db".parse().unwrap()).is_empty());
        assert!(
            matches!(verdict(&judged, "orders"), Verdict::Invalid { reasons, .. } if !reasons.is_empty()),
            "{spec}"
        );
        assert!(matches!(verdict(&judged, "g"), Verdict::RoleNotFound(_)), "{spec}");
    }
}
