/**
 * TCP, by host and port: `host:port` or `[v6]:port`.
 *
 * @module
 */
import { SystemError, TimeoutError } from "../errors.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import type { EndpointKind, Listener } from "./endpoint_kind.ts";
import { plainTransport } from "./plain_transport.ts";
import {
  acceptSocket,
  configureSocket,
  connectSocket,
  listenSocket,
  setNoDelay,
} from "./socket.ts";
import { inetAddress, readInetAddress, type SocketAddress } from "./socket_address.ts";
import { ipVersion } from "./ip_address.ts";

/** A TCP endpoint by name or number. */
export interface TcpEndpoint {
  readonly kind: "tcp";
  readonly host: string;
  readonly port: number;
}

const PORT_MAX = 65_535;

function parse(text: string): TcpEndpoint | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > PORT_MAX) return undefined;
  if (match?.[1] !== undefined && ipVersion(host) !== 6) return undefined;
  return { kind: "tcp", host, port };
}

function format({ host, port }: TcpEndpoint): string {
  return ipVersion(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

async function resolve(endpoint: TcpEndpoint, limitMs: number): Promise<TcpEndpoint> {
  const { host } = endpoint;
  if (ipVersion(host) !== 0) return endpoint;
  // Not imported: channels resolve no names and start without the module.
  const resolver = process.getBuiltinModule("node:dns/promises");
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(
      new TimeoutError(
        "ERR_MULTIFD_TIMEOUT",
        `Cannot resolve ${host}: no answer within ${limitMs} ms`,
      ),
    );
  }, limitMs);
  try {
    const { address } = await Promise.race([resolver.lookup(host), late]);
    return { ...endpoint, host: address };
  } catch (error) {
    if (error instanceof TimeoutError) throw error;
    const errno = (error as NodeJS.ErrnoException).code ?? "unknown host";
    throw new SystemError(`Cannot resolve ${host}: ${errno}`, { errno, cause: error });
  } finally {
    clearTimeout(timer);
  }
}

function addressOf(endpoint: TcpEndpoint): SocketAddress {
  return inetAddress(endpoint.host, endpoint.port, format(endpoint));
}

function listen(endpoint: TcpEndpoint, backlog: number): Listener<TcpEndpoint> {
  const { fd, bound } = listenSocket(addressOf(endpoint), backlog, { reuseAddress: true });
  const endpointOf = (address: Uint8Array): TcpEndpoint => ({
    kind: "tcp",
    ...readInetAddress(address),
  });
  return {
    fd,
    endpoint: endpointOf(bound),
    accept: () => acceptSocket(fd, (address) => format(endpointOf(address))),
    configure,
    removeName: () => {},
  };
}

function connect(
  endpoint: TcpEndpoint,
  limitMs: number,
  session: Stoppable,
  onSocket: (fd: number) => void,
): number {
  const fd = connectSocket(addressOf(endpoint), limitMs, session, onSocket);
  configure(fd);
  return fd;
}

function configure(fd: number): void {
  configureSocket(fd);
  setNoDelay(fd);
}

/** See the module comment. */
export const tcp: EndpointKind<TcpEndpoint> = {
  forms: ["host:port", "[v6]:port"],
  transport: plainTransport,
  parse,
  format,
  resolve,
  listen,
  connect,
};
