/** IndexedDB as promises: one database with one store, opened once. */

export interface Kept {
  /** One request in a transaction of its own; what was written is on the disk as soon as browsers can tell. */
  ask(mode: IDBTransactionMode, request: (store: IDBObjectStore) => IDBRequest): Promise<unknown>;
  /** Changes a record in one transaction, and only if it is still there. */
  change(key: IDBValidKey, changes: object): Promise<void>;
}

export function keptIn(database: string, name: string, options: IDBObjectStoreParameters): Kept {
  let opening: Promise<IDBDatabase> | null = null;

  const open = async () => {
    const request = indexedDB.open(database, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(name, options);
    const found = (await done(request)) as IDBDatabase;
    found.onversionchange = () => found.close(); // a newer page in another tab
    found.onclose = () => {
      opening = null;
    };
    return found;
  };

  const opened = async (mode: IDBTransactionMode) => {
    opening ??= open().catch((failure: unknown) => {
      opening = null;
      throw failure;
    });
    return (await opening).transaction(name, mode, { durability: "strict" }).objectStore(name);
  };

  return {
    ask: async (mode, request) => done(request(await opened(mode))),
    change: async (key, changes) => {
      const store = await opened("readwrite");
      const found = (await done(store.get(key))) as object | undefined;
      if (found) await done(store.put({ ...found, ...changes }));
    },
  };
}

function done(request: IDBRequest): Promise<unknown> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Runs `work` when no other page, nor this one, has work under the same name. */
export function alone<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
  const locks = globalThis.navigator?.locks as LockManager | undefined; // secure origins only
  return locks ? (locks.request(name, work) as Promise<Result>) : work();
}
