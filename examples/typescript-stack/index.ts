// A stack in TypeScript, after `pulumi package add ../../components`.
import * as pulumi from '@pulumi/pulumi'
import { NotifyingPostgres } from '@pulumi/notifying-postgres'

const config = new pulumi.Config()

const postgres = new NotifyingPostgres('shop', {
  image: config.get('image'),
  baseImage: config.get('baseImage'),
  databases: {
    orders: { memory: '512m' },
    events: { user: 'ingest', password: config.getSecret('eventsPassword') },
  },
})

export const ordersUrl = postgres.urls.apply((urls) => urls['orders'])
export const ordersContainer = postgres.databases.apply((databases) => databases['orders'].containerName)
export const databases = postgres.databases
