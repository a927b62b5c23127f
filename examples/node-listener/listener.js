// Prints every schema change once, also those that were made while it was away:
//
//   npm install && DATABASE_URL=postgresql://app:…@db/app npm start
//
// A notice only says that the log is worth reading; what happened comes from the log, from the cursor on. So it does not
// matter whether a notice was lost, came twice, or was too long to tell everything.
import { readFile, rename, writeFile } from 'node:fs/promises'
import postgres from 'postgres'

const sql = postgres(process.env.DATABASE_URL, { onnotice: () => {} })
const file = process.env.CURSOR_FILE ?? 'schema.cursor'
let cursor = await readFile(file, 'utf8').catch((error) => {
  if (error.code !== 'ENOENT') throw error
  return null // the first start: from now on
})

async function onChange(change) {
  console.log(JSON.stringify({ id: change.id, tag: change.tag, objects: change.objects }))
}

async function onReset(reason) {
  console.log(JSON.stringify({ reset: reason })) // read the whole schema again
}

async function catchUp() {
  for (const row of await sql`SELECT * FROM schema_notifications.changes_since(${cursor})`) {
    if (row.kind === 'change') await onChange(row)
    if (row.kind === 'reset') await onReset(row.tag)
    if (row.cursor) cursor = row.cursor // the last row
  }
  await writeFile(`${file}.new`, cursor)
  await rename(`${file}.new`, file)
}

// One read runs and at most one waits: more would find nothing.
let reading = Promise.resolve()
let waiting = false
function wake() {
  if (waiting) return
  waiting = true
  reading = reading.then(() => {
    waiting = false
    return catchUp()
  }).catch((error) => {
    console.error(`Reading the log failed, trying again in 1 s: ${error.message}`)
    setTimeout(wake, 1000)
  })
}

// The third argument is called each time that it listens, after a reconnect too.
await sql.listen('schema_changed', wake, wake)
await reading
console.error('Listening.')
