/**
 * A load thread: runs the code of one device over its queue and checks that nothing is left.
 *
 * @module
 */
import { DeviceQueue } from "../engine/device_queue.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { PoolJob } from "../thread/pool_messages.ts";
import { servePool } from "../thread/pool_worker.ts";
import type { TaskContext } from "../thread/task_pool.ts";
import { callWorkerFunction } from "../thread/worker_function.ts";
import { loadDescriptor } from "./descriptor_device.ts";
import { named } from "./device_failure.ts";
import type { DeviceCode } from "./device.ts";
import type { LoadTask } from "./device_messages.ts";
import { rehearseLoad } from "./device_rehearsal.ts";
import { LoadContext } from "./load_context.ts";
import { loadMemory } from "./memory_device.ts";

/** Serves loads until the pool is disposed. */
export function runLoadPool(job: PoolJob): Promise<void> {
  return servePool(job, (task, context) => runLoad(task as LoadTask, context), rehearseLoad);
}

/** Runs one load; its failure ends the session. */
async function runLoad({ device, control: shared }: LoadTask, task: TaskContext): Promise<void> {
  const control = new SessionControl(shared);
  try {
    const queue = new DeviceQueue(device.queue, control);
    const context = new LoadContext(queue, task, device.configAfterRam);
    await load(context, device.load);
    context.end();
  } catch (error) {
    const failure = named("load", device.queue.idstr, error);
    control.fail(failure, { side: "destination" });
    throw failure;
  }
}

async function load(context: LoadContext, code: DeviceCode): Promise<void> {
  if (!("builtin" in code)) return callWorkerFunction(code, context);
  if (code.builtin === "descriptor") loadDescriptor(context, code);
  else loadMemory(context, code);
}
