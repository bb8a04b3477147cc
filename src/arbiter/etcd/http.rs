//! One HTTP connection to one member of etcd.
//!
//! Every request has a limit on time, every answer one on its length. After an error nothing is
//! known of the request, and the connection is of no more use.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::EtcdSettings;
use super::error::EtcdError;
use super::message::{Authenticated, Failure, authenticate_body};
use crate::config::EtcdEndpoint;

/// Longest answer that is read, in bytes. A look at 32 resources has about 100 KiB; a stranger's
/// value has at most 1.5 MiB, since etcd takes no longer one.
const ANSWER_LEN_MAX: usize = 8 << 20;
/// Longest part of etcd's words that is shown.
const MESSAGE_LEN_MAX: usize = 200;
/// Least time for connecting.
const CONNECT_MIN: Duration = Duration::from_secs(1);

/// A connection.
pub(super) struct Link {
    endpoint: EtcdEndpoint,
    sender: http1::SendRequest<Full<Bytes>>,
    /// Ends with the link.
    carrier: tokio::task::JoinHandle<()>,
    /// What proves who we are, if somebody must.
    token: Option<String>,
    limit: Duration,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Link {
    /// Connects, and logs in if there is a user.
    pub(super) async fn open(
        settings: &EtcdSettings,
        endpoint: &EtcdEndpoint,
    ) -> Result<Self, EtcdError> {
        let limit = settings.limit.max(CONNECT_MIN);
        let failed = |action| {
            let endpoint = endpoint.to_string();
            move |source| EtcdError::Io { endpoint, action, source }
        };
        let slow = || EtcdError::Slow { endpoint: endpoint.to_string(), path: "connect", limit };
        let address = (endpoint.host.as_str(), endpoint.port);
        let socket = timeout(limit, TcpStream::connect(address)).await.map_err(|_| slow())?;
        let socket = socket.map_err(failed("connect"))?;
        socket.set_nodelay(true).map_err(failed("set up the connection"))?;
        let stream = timeout(limit, settings.security.connect(endpoint, socket));
        let stream = stream.await.map_err(|_| slow())?.map_err(failed("do a TLS handshake"))?;
        let shaken = timeout(limit, http1::handshake(TokioIo::new(stream)));
        let (sender, connection) = shaken.await.map_err(|_| slow())?.map_err(|source| {
            let endpoint = endpoint.to_string();
            EtcdError::Http { endpoint, source }
        })?;
        let carrier = tokio::spawn(async {
            // `sender` says how it ended.
            let _ = connection.await;
        });
        let endpoint = endpoint.clone();
        let mut link = Self { endpoint, sender, carrier, token: None, limit: settings.limit };
        if let Some(login) = &settings.login {
            let body = authenticate_body(&login.user, &login.password);
            let Authenticated { token } = link.call("/v3/auth/authenticate", &body).await?;
            link.token = Some(token);
        }
        Ok(link)
    }

    /// Which member this is.
    pub(super) fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        path: &'static str,
        body: &Value,
    ) -> Result<T, EtcdError> {
        let limit = self.limit;
        let endpoint = self.endpoint();
        let done = async {
            let response = self.send(path, body).await?;
            self.read(path, response).await
        };
        match timeout(limit, done).await {
            Ok(answer) => answer,
            Err(_) => Err(EtcdError::Slow { endpoint, path, limit }),
        }
    }

    /// Asks for a stream.
    pub(super) async fn stream(
        &mut self,
        path: &'static str,
        body: &Value,
    ) -> Result<Incoming, EtcdError> {
        let limit = self.limit;
        let endpoint = self.endpoint();
        let response = match timeout(limit, self.send(path, body)).await {
            Ok(response) => response?,
            Err(_) => return Err(EtcdError::Slow { endpoint, path, limit }),
        };
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        self.read::<Value>(path, response).await?;
        Err(EtcdError::Odd { endpoint, what: "a watch is no stream" })
    }

    async fn send(
        &mut self,
        path: &'static str,
        body: &Value,
    ) -> Result<Response<Incoming>, EtcdError> {
        let failed = |endpoint| move |source| EtcdError::Http { endpoint, source };
        self.sender.ready().await.map_err(failed(self.endpoint()))?;
        let mut request = Request::post(path)
            .header("host", self.endpoint.authority())
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", token.as_str());
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())));
        // A token with letters that no header may have.
        let Ok(request) = request else {
            let what = "its token cannot be sent back";
            return Err(EtcdError::Odd { endpoint: self.endpoint(), what });
        };
        self.sender.send_request(request).await.map_err(failed(self.endpoint()))
    }

    async fn read<T: DeserializeOwned>(
        &self,
        path: &'static str,
        response: Response<Incoming>,
    ) -> Result<T, EtcdError> {
        let endpoint = self.endpoint();
        let status = response.status();
        let body = match Limited::new(response.into_body(), ANSWER_LEN_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(EtcdError::TooLong { endpoint, path, max: ANSWER_LEN_MAX });
            }
            Err(error) => {
                return Err(match error.downcast() {
                    Ok(source) => EtcdError::Http { endpoint, source: *source },
                    Err(_) => EtcdError::Odd { endpoint, what: "the answer broke off" },
                });
            }
        };
        if !status.is_success() {
            let message = match serde_json::from_slice(&body) {
                Ok(Failure { message }) if !message.is_empty() => message,
                _ => "no reason given".to_owned(),
            };
            let message = message.chars().take(MESSAGE_LEN_MAX).collect();
            return Err(EtcdError::Refused { endpoint, path, status: status.as_u16(), message });
        }
        serde_json::from_slice(&body).map_err(|source| EtcdError::NoSense {
            endpoint,
            path,
            source,
        })
    }
}
