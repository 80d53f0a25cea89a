//! `palisade connectivity serve`: tells whoever speaks to it who it is, and whom it sees.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use super::wire::{Greeting, LINE, is_unsupported, sctp_listener};

/// Serves the ports by TCP and UDP, and by SCTP where the kernel has it, at every address, until the process is told to
/// end.
///
/// # Errors
///
/// A port cannot be served.
pub async fn serve(name: &str, ports: &[u16]) -> anyhow::Result<()> {
    let name: Arc<str> = name.into();
    let mut servers = JoinSet::new();
    for &port in ports {
        let serving = || format!("while serving port {port}");
        for listener in listeners(port).await.with_context(serving)? {
            servers.spawn(streams(listener, name.clone()));
        }
        let socket = bind_udp(port).await.with_context(serving)?;
        servers.spawn(datagrams(socket, name.clone()));
    }
    // As the first process of its container it would not end by itself.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
        Some(ended) = servers.join_next() => Ok(ended??),
    }
}

async fn listeners(port: u16) -> io::Result<Vec<TcpListener>> {
    let tcp = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if is_unsupported(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?
        }
        bound => bound?,
    };
    let sctp = match sctp_listener(port) {
        Err(error) if is_unsupported(&error) => None,
        listener => Some(TcpListener::from_std(listener?)?),
    };
    Ok([tcp].into_iter().chain(sctp).collect())
}

async fn bind_udp(port: u16) -> io::Result<UdpSocket> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if is_unsupported(&error) => {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

async fn streams(listener: TcpListener, name: Arc<str>) -> io::Result<()> {
    loop {
        let (stream, client) = listener.accept().await?;
        let name = name.clone();
        tokio::spawn(async move {
            // A client may end as it likes.
            drop(converse(stream, client, &name).await);
        });
    }
}

/// Answers each line, or what comes of it.
async fn converse(mut stream: TcpStream, client: SocketAddr, name: &str) -> io::Result<()> {
    let greeting = greeting(name, client)?;
    let mut buffer = [0; LINE];
    while stream.read(&mut buffer).await? > 0 {
        stream.write_all(&greeting).await?;
    }
    Ok(())
}

async fn datagrams(socket: UdpSocket, name: Arc<str>) -> io::Result<()> {
    let mut buffer = [0; LINE];
    loop {
        // An error speaks of one that was answered before.
        if let Ok((_, client)) = socket.recv_from(&mut buffer).await {
            drop(socket.send_to(&greeting(&name, client)?, client).await);
        }
    }
}

fn greeting(name: &str, client: SocketAddr) -> io::Result<Vec<u8>> {
    let greeting = Greeting {
        server: name.to_owned(),
        client: SocketAddr::new(client.ip().to_canonical(), client.port()),
    };
    let mut line = serde_json::to_vec(&greeting)?;
    line.push(b'\n');
    Ok(line)
}
