//! Where a Service leads.
//!
//! Policies never see a Service: a packet to one is judged where it is sent on to. What that may be is told here, from
//! the Service's selector, as the controller of EndpointSlices does it. Whether a pod is ready is not known here.

use std::sync::Arc;

use crate::{
    index::{Index, Pod},
    model::{Labels, Protocol, Service, TargetPort},
};

/// The pods that the Service selects and that have not finished, by name; those of the host network are among them.
/// None where it has no selector.
pub fn backends<'a>(
    index: &'a Index,
    service: &'a Service,
) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
    let selector = service.selector.iter();
    selector.flat_map(move |selector| {
        let pods = index.pods_of(&service.name.namespace);
        pods.filter(|pod| !pod.finished && selector.matches(&pod.group.labels))
    })
}

/// Labels of the DNS servers of clusters: kubeadm's and most providers', the chart's of CoreDNS, OpenShift's.
const DNS: [(&str, &str); 4] = [
    ("k8s-app", "kube-dns"),
    ("k8s-app", "coredns"),
    ("app.kubernetes.io/name", "coredns"),
    ("dns.operator.openshift.io/daemonset-dns", "default"),
];

/// Whether a pod with these labels is one of the cluster's DNS servers.
#[must_use]
pub fn is_dns(labels: &Labels) -> bool {
    let mut known = DNS.iter();
    known.any(|(key, value)| labels.get(*key).is_some_and(|it| **it == **value))
}

/// The number of the port at that pod; `None` where the pod has no port of that name.
#[must_use]
pub fn port_at(pod: &Pod, protocol: Protocol, target: &TargetPort) -> Option<u16> {
    match target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Named(name) => {
            let mut ports = pod.group.ports.iter();
            let named = ports.find(|port| port.name == *name && port.protocol == protocol);
            named.map(|port| port.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Object, ServicePort},
        testing::{name, named_ports, pod, selector},
    };

    fn service(words: Option<&str>) -> Service {
        Service {
            name: name("x/s"),
            addresses: Vec::new(),
            selector: words.map(selector),
            ports: vec![ServicePort {
                name: "".into(),
                protocol: Protocol::Tcp,
                port: 80,
                target: TargetPort::Named("http".into()),
            }],
        }
    }

    #[test]
    fn a_service_leads_to_the_pods_of_its_namespace_that_it_selects() {
        let mut index = Index::default();
        for (name, labels) in [
            ("w/a", "app=a"),
            ("x/a", "app=a"),
            ("x/b", "app=b"),
            ("y/a", "app=a"),
        ] {
            index.apply(Object::Pod(pod(name, labels, &[])));
        }
        let mut finished = pod("x/z", "app=a", &[]);
        finished.finished = true;
        index.apply(Object::Pod(finished));
        let names = |service: &Service| {
            let backends = backends(&index, service);
            backends.map(|pod| pod.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&service(Some("app=a"))), ["x/a"]);
        assert_eq!(names(&service(Some(""))), ["x/a", "x/b"]);
        assert_eq!(names(&service(None)), [""; 0]);
    }

    #[test]
    fn a_named_target_is_a_port_of_the_pod_of_the_same_protocol() {
        let mut index = Index::default();
        let mut with = pod("x/a", "app=a", &[]);
        with.ports = named_ports("http=8080/UDP http=8081/TCP");
        index.apply(Object::Pod(with));
        let pod = index.pod(&name("x/a")).expect("applied");
        let at = |target: &str| port_at(pod, Protocol::Tcp, &TargetPort::Named(target.into()));
        assert_eq!((at("http"), at("https")), (Some(8081), None));
        assert_eq!(port_at(pod, Protocol::Udp, &TargetPort::Number(1)), Some(1));
    }
}
