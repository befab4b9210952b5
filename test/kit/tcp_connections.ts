/** Established TCP connections of this machine, as the kernel lists them. */
import { readFileSync } from "node:fs";
import { LimitMs } from "./limits.ts";

const ESTABLISHED = "01";

/** How many connections the listener of an IPv4 `host:port` has accepted or is about to. */
function connectionsTo(endpoint: string): number {
  const port = Number(endpoint.slice(endpoint.lastIndexOf(":") + 1));
  const wanted = port.toString(16).toUpperCase().padStart(4, "0");
  return readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local?.endsWith(`:${wanted}`) && state === ESTABLISHED).length;
}

/** Waits until so many connections lead to `endpoint`: how long processes need to start varies. */
export async function untilConnected(endpoint: string, connections: number): Promise<void> {
  const deadline = performance.now() + LimitMs.migration;
  while (connectionsTo(endpoint) < connections) {
    if (performance.now() > deadline) {
      throw new Error(`There are ${connectionsTo(endpoint)} connections to ${endpoint}`);
    }
    await Bun.sleep(20);
  }
}
