//! A Service has no verdict of its own: each packet is judged by the pod that it is sent on to.

use palisade_policy::{
    index::Index,
    model::{Service, ServicePort},
    service::{backends, port_at},
};

use super::{End, Nodes, Port, Query, between, failure};
use crate::api::proto::{Backend, Failure, ServiceExplanation, ServiceName, ServicePassing};

/// The Service that is meant, by its name or by one of its addresses.
///
/// # Errors
///
/// There is none of that name.
pub(super) fn of<'a>(index: &'a Index, end: &End) -> Result<Option<&'a Service>, Failure> {
    match end {
        End::Pod(_) => Ok(None),
        End::Address(address) => {
            let mut services = index.services();
            Ok(services.find(|service| service.addresses.contains(address)))
        }
        End::Service(name) => match index.service(name) {
            Some(service) => Ok(Some(service)),
            None => Err(failure(format_args!("Service {name} is not known"))),
        },
    }
}

/// Answers for each pod that the Service leads to, at each of its ports or the one that was asked about.
///
/// # Errors
///
/// It is not known where it leads, or it has no such port.
pub(super) fn answer(
    index: &Index,
    nodes: &Nodes,
    query: &Query,
    service: &Service,
) -> Result<ServiceExplanation, Failure> {
    let name = &service.name;
    if service.selector.is_none() {
        return Err(failure(format_args!(
            "the Service {name} selects no pods: where it leads is not known, ask about that"
        )));
    }
    if backends(index, service).next().is_none() {
        return Err(failure(format_args!("the Service {name} leads to no pod")));
    }
    let asked = |port: &&ServicePort| {
        query
            .port
            .is_none_or(|asked| (asked.number, asked.protocol) == (port.port, port.protocol))
    };
    let ports: Vec<_> = service.ports.iter().filter(asked).collect();
    if ports.is_empty() {
        let each = service.ports.iter();
        let each: Vec<_> = each
            .map(|port| format!("{}/{}", port.port, port.protocol))
            .collect();
        return Err(failure(format_args!(
            "the Service {name} has no such port; it has {}",
            if each.is_empty() {
                "none".to_owned()
            } else {
                each.join(", ")
            }
        )));
    }
    let ports: Vec<_> = ports
        .into_iter()
        .map(|port| passing(index, nodes, &query.from, service, port))
        .collect();
    Ok(ServiceExplanation {
        from: query.from.to_string(),
        service: ServiceName {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
        },
        allowed: ports.iter().all(|port| port.allowed),
        ports,
    })
}

fn passing(
    index: &Index,
    nodes: &Nodes,
    from: &End,
    service: &Service,
    port: &ServicePort,
) -> ServicePassing {
    let mut all = Vec::new();
    for pod in backends(index, service) {
        // A pod without a port of that name is no backend of it.
        let Some(number) = port_at(pod, port.protocol, &port.target) else {
            continue;
        };
        let query = Query {
            from: from.clone(),
            to: End::Pod(pod.name.clone()),
            port: Some(Port {
                number,
                protocol: port.protocol,
            }),
        };
        let (explanation, unknown) = match between(index, nodes, &query) {
            Ok(explanation) => (Some(explanation), None),
            Err(failure) => (None, Some(failure.error)),
        };
        all.push(Backend {
            namespace: pod.name.namespace.to_string(),
            pod: pod.name.name.to_string(),
            port: number,
            explanation,
            unknown,
        });
    }
    let allowed = |backend: &Backend| backend.explanation.as_ref().is_some_and(|it| it.allowed);
    ServicePassing {
        port: port.port,
        protocol: port.protocol.to_string(),
        name: port.name.to_string(),
        allowed: !all.is_empty() && all.iter().all(allowed),
        backends: all,
    }
}
