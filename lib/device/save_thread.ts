/**
 * A save thread: runs the code of one device and closes its state with the config.
 *
 * @module
 */
import { DeviceClient } from "../engine/device_client.ts";
import { SessionControl } from "../sync/session_control.ts";
import type { PoolJob } from "../thread/pool_messages.ts";
import { servePool } from "../thread/pool_worker.ts";
import type { TaskContext } from "../thread/task_pool.ts";
import { callWorkerFunction } from "../thread/worker_function.ts";
import { saveDescriptor } from "./descriptor_device.ts";
import { named } from "./device_failure.ts";
import type { SaveConfig } from "./device.ts";
import type { SaveTask } from "./device_messages.ts";
import { rehearseSave } from "./device_rehearsal.ts";
import { saveMemory } from "./memory_device.ts";
import { SaveContext } from "./save_context.ts";

/** Serves saves until the pool is disposed. */
export function runSavePool(job: PoolJob): Promise<void> {
  return servePool(job, (task, context) => runSave(task as SaveTask, context), rehearseSave);
}

/** Runs one save; its failure ends the session, and with it all other saves. */
async function runSave({ device, client }: SaveTask, task: TaskContext): Promise<void> {
  try {
    const context = new SaveContext(device, new DeviceClient(client), task);
    await save(context, device);
    // What tells the destination that nothing is missing; devices without one send it empty.
    if (device.format === "vfio" && !context.configured) context.config(device.config);
  } catch (error) {
    const failure = named("save", device.idstr, error);
    new SessionControl(client.control).fail(failure, { side: "source" });
    throw failure;
  }
}

async function save(context: SaveContext, { save: code }: SaveConfig): Promise<void> {
  if (code === undefined) return;
  if (!("builtin" in code)) return callWorkerFunction(code, context);
  if (code.builtin === "descriptor") saveDescriptor(context, code);
  else saveMemory(context, code);
}
