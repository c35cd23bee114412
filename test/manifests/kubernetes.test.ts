// `npm run test:manifests`: deploy/kubernetes as kustomize builds it, by the schemas of several releases of Kubernetes; and what no
// schema knows: that one part fits another, and what we promise of rights and secrets. Needs Go and Python.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readConfig } from '../../src/config.ts'
import { temporaryFolder } from '../fixtures/server.ts'
import { goProgram, pythonPackage } from './tools.ts'

const kustomize = goProgram('kustomize', 'sigs.k8s.io/kustomize/kustomize/v5', 'v5.7.1')
const python = pythonPackage('kubernetes-validate', '1.37.0')
const releases = ['1.28', '1.31', '1.34', '1.37']
const overlays = ['one', 'several'] as const

interface Container {
  readonly name: string
  readonly image: string
  readonly env?: { name: string; value?: string; valueFrom?: unknown }[]
  readonly envFrom?: { configMapRef: { name: string } }[]
  readonly ports?: { name: string; containerPort: number }[]
  readonly volumeMounts?: { name: string; mountPath: string }[]
  readonly securityContext?: unknown
  readonly resources?: { requests?: object; limits?: object }
  readonly livenessProbe?: Probe
  readonly readinessProbe?: Probe
  readonly startupProbe?: Probe
}

interface Probe {
  readonly httpGet: { path: string; port: string }
}

interface PodSpec {
  readonly containers: Container[]
  readonly initContainers?: Container[]
  readonly volumes?: {
    name: string
    configMap?: { name: string }
    secret?: { secretName: string; defaultMode: number }
    persistentVolumeClaim?: { claimName: string }
  }[]
  readonly securityContext?: unknown
  readonly terminationGracePeriodSeconds?: number
  readonly serviceAccountName?: string
  readonly automountServiceAccountToken?: boolean
  readonly enableServiceLinks?: boolean
}

interface Manifest {
  readonly kind: string
  readonly metadata: { name: string; namespace?: string; labels?: Record<string, string> }
  readonly data?: Record<string, string>
  // biome-ignore lint/suspicious/noExplicitAny: each kind has another
  readonly spec?: any
}

const run = (program: string, args: readonly string[], input?: string) => {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', input })
  return { isOk: status === 0, output: error === undefined ? stdout + stderr : String(error), stdout }
}

function build(overlay: string): { yaml: string; manifests: Manifest[] } {
  const { isOk, output, stdout } = run(kustomize, ['build', `deploy/kubernetes/${overlay}`])
  if (!isOk) {
    throw new Error(output)
  }
  const json = run(
    join(python, 'python'),
    ['-c', 'import json, sys, yaml; json.dump([d for d in yaml.safe_load_all(sys.stdin)], sys.stdout)'],
    stdout
  )
  return { yaml: stdout, manifests: JSON.parse(json.stdout) as Manifest[] }
}

function validate(folder: string, yaml: string) {
  const file = join(folder, 'manifests.yaml')
  writeFileSync(file, yaml)
  return releases.map((release) => ({
    release,
    ...run(join(python, 'kubernetes-validate'), ['--strict', '--kubernetes-version', release, file])
  }))
}

const built = overlays.map((overlay) => ({ overlay, ...build(overlay) }))

/** Each pod's template, with the name of what makes it. */
function podsOf(manifests: readonly Manifest[]) {
  return manifests
    .filter(({ spec }) => spec?.template?.spec !== undefined)
    .map(({ kind, metadata, spec }) => ({
      name: `${kind} ${metadata.name}`,
      labels: spec.template.metadata.labels as Record<string, string>,
      claims: ((spec.volumeClaimTemplates ?? []) as Manifest[]).map((claim) => claim.metadata.name),
      pod: spec.template.spec as PodSpec
    }))
}

const containersOf = (pod: PodSpec) => [...(pod.initContainers ?? []), ...pod.containers]
const fits = (selector: Record<string, string>, labels: Record<string, string>) =>
  Object.entries(selector).every(([key, value]) => labels[key] === value)

t.test('each overlay is valid, strictly, for each release', async (t) => {
  const folder = temporaryFolder(t)
  for (const { overlay, yaml } of built) {
    for (const { release, isOk, output } of validate(folder, yaml)) {
      t.ok(isOk, `${overlay}, Kubernetes ${release}: ${isOk ? '' : output}`)
    }
  }
})

t.test('a misspelt field and a wrong type are seen', async (t) => {
  const folder = temporaryFolder(t)
  const yaml = built[0]?.yaml ?? ''
  for (const [old, by] of [
    ['runAsNonRoot:', 'runAsNotRoot:'],
    ['failureThreshold: 30', 'failureThreshold: often']
  ] as const) {
    t.ok(yaml.includes(old))
    t.same(
      validate(folder, yaml.replace(old, by)).map(({ isOk }) => isOk),
      releases.map(() => false),
      by
    )
  }
})

t.test('each pod meets the standard "restricted", which the namespace enforces', async (t) => {
  // https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
  for (const { overlay, manifests } of built) {
    const namespace = manifests.find(({ kind }) => kind === 'Namespace')
    t.equal(namespace?.metadata.labels?.['pod-security.kubernetes.io/enforce'], 'restricted')
    const pods = podsOf(manifests)
    t.equal(pods.length, 2, overlay)
    for (const { name, pod } of pods) {
      t.match(
        pod.securityContext,
        { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } },
        name
      )
      t.match(pod, {
        serviceAccountName: 'msal-logout',
        automountServiceAccountToken: false,
        enableServiceLinks: false
      })
      t.notMatch(JSON.stringify(pod), /host(Network|PID|IPC|Path|Port)|privileged|emptyDir/)
      for (const container of containersOf(pod)) {
        t.same(
          container.securityContext,
          { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
          `${name}, ${container.name}`
        )
        t.match(container.resources, { requests: { cpu: String, memory: String }, limits: { memory: String } })
      }
    }
  }
})

t.test('each part fits the other: labels, ports, volumes, names', async (t) => {
  for (const { overlay, manifests } of built) {
    const names = (wanted: string) =>
      manifests.filter(({ kind }) => kind === wanted).map(({ metadata }) => metadata.name)
    const pods = podsOf(manifests)
    const serve = pods.find(({ labels }) => labels['app.kubernetes.io/component'] === 'serve')
    const ports = serve?.pod.containers.flatMap(({ ports = [] }) => ports.map(({ name }) => name)) ?? []
    t.same(ports, ['public', 'operators'], overlay)
    for (const { kind, metadata, spec } of manifests) {
      const at = `${overlay}: ${kind} ${metadata.name}`
      const selector: Record<string, string> | undefined =
        kind === 'Service' ? spec.selector : (spec?.selector ?? spec?.podSelector)?.matchLabels
      if (selector !== undefined) {
        t.ok(
          pods.some(({ labels }) => fits(selector, labels)),
          at
        )
      }
      if (kind === 'Service') {
        t.ok(ports.includes(spec.ports[0].targetPort), at)
        t.notOk(
          pods.some(({ labels, name }) => name.startsWith('Job') && fits(spec.selector, labels)),
          `${at} sends nothing to the job`
        )
      }
      if (kind === 'Deployment' || kind === 'StatefulSet') {
        t.ok(fits(spec.selector.matchLabels, spec.template.metadata.labels), at)
      }
      if (kind === 'StatefulSet') {
        t.ok(names('Service').includes(spec.serviceName), at)
      }
      if (kind !== 'Namespace') {
        t.equal(metadata.namespace, 'msal-logout', at)
      }
    }
    for (const { name, claims, pod } of pods) {
      const volumes = [...(pod.volumes ?? []).map(({ name }) => name), ...claims]
      const mounted = containersOf(pod).flatMap(({ volumeMounts = [] }) => volumeMounts.map((mount) => mount.name))
      t.same(volumes.toSorted(), [...new Set(mounted)].sort(), `${overlay}: ${name}`)
      for (const { configMap, persistentVolumeClaim } of pod.volumes ?? []) {
        t.ok(configMap === undefined || names('ConfigMap').includes(configMap.name))
        t.ok(
          persistentVolumeClaim === undefined ||
            names('PersistentVolumeClaim').includes(persistentVolumeClaim.claimName)
        )
      }
      for (const { configMapRef } of containersOf(pod).flatMap(({ envFrom = [] }) => envFrom)) {
        t.ok(names('ConfigMap').includes(configMapRef.name))
      }
    }
    const paths = manifests
      .filter(({ kind }) => kind === 'Ingress')
      .flatMap(({ spec }) => spec.rules[0].http.paths as { path: string; backend: { service: { name: string } } }[])
    t.same(
      [...new Set(paths.map(({ backend }) => backend.service.name))],
      ['msal-logout'],
      'the operators are not published'
    )
    t.notMatch(paths.map(({ path }) => path).join(' '), /admin|readyz|metrics|^\/$/)
  }
})

t.test('one instance is replaced by a second beside it, several one after the other', async (t) => {
  const [one, several] = built.map(({ manifests }) =>
    manifests.find(({ kind }) => kind === 'Deployment' || kind === 'StatefulSet')
  )
  t.match(one, {
    kind: 'Deployment',
    spec: {
      replicas: 1,
      strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
      template: { spec: { affinity: { podAffinity: {} } } }
    }
  })
  t.match(several, { kind: 'StatefulSet', spec: { replicas: 3, volumeClaimTemplates: [{}] } })
  t.same(several?.spec.strategy, undefined, 'which a StatefulSet does not know')
})

t.test('secrets come as files, and the instances never see the credentials of the owner', async (t) => {
  for (const { manifests } of built) {
    t.notOk(manifests.some(({ kind }) => kind === 'Secret'))
    for (const { name, pod } of podsOf(manifests)) {
      const secrets = (pod.volumes ?? []).flatMap(({ secret }) => secret ?? [])
      t.same(
        secrets.map(({ secretName }) => secretName),
        [name.startsWith('Job') ? 'msal-logout-owner' : 'msal-logout'],
        name
      )
      t.ok(
        secrets.every(({ defaultMode }) => defaultMode === 0o440),
        name
      )
      for (const { name: variable, value, valueFrom } of containersOf(pod).flatMap(({ env = [] }) => env)) {
        t.notMatch(variable, /(PASSWORD|TOKEN|URL|SECRET)$/)
        t.ok(value !== undefined && valueFrom === undefined)
      }
    }
  }
})

t.test('the environment is one that the service starts with', async (t) => {
  const folder = temporaryFolder(t)
  for (const { overlay, manifests } of built) {
    const maps = manifests.filter(({ kind }) => kind === 'ConfigMap')
    const issuers = maps.find(({ data }) => data?.['issuers.json'] !== undefined)
    const environment = maps.find(({ metadata }) => metadata.name.startsWith('msal-logout-environment'))
    const files: Record<string, string> = {
      ISSUERS_FILE: issuers?.data?.['issuers.json'] ?? '',
      DATABASE_URL_FILE: 'postgres://msal_logout_service:password@db.example.com/msal_logout',
      ADMIN_TOKEN_FILE: 'x'.repeat(48)
    }
    const serve = podsOf(manifests).find(({ name }) => !name.startsWith('Job'))
    const [container] = serve?.pod.containers ?? []
    const env = Object.fromEntries((container?.env ?? []).map(({ name, value = '' }) => [name, value]))
    for (const [variable, content] of Object.entries(files)) {
      const path = env[variable] ?? ''
      t.ok(
        container?.volumeMounts?.some(({ mountPath }) => path.startsWith(`${mountPath}/`)),
        `${overlay}: ${path}`
      )
      env[variable] = join(folder, variable)
      writeFileSync(env[variable], content)
    }
    const config = readConfig({ ...env, ...environment?.data })
    t.equal(config.issuers.length, 1)
    t.same(config.trustedProxies, ['10.0.0.0/8'])
    // src/server.ts: it stops within 10 s after that.
    t.ok((serve?.pod.terminationGracePeriodSeconds ?? 0) >= config.drainSeconds + 10 + 10, 'time enough to stop')
    const { startupProbe, readinessProbe, livenessProbe } = container ?? {}
    for (const probe of [startupProbe, readinessProbe, livenessProbe]) {
      t.same(probe?.httpGet, { path: '/healthz', port: 'public' }, 'without a database each goes on to get signals')
    }
  }
})

t.test('the spool is where the image has it', async (t) => {
  const dockerfile = readFileSync('Dockerfile', 'utf8')
  t.match(dockerfile, /SPOOL_DIR=\/spool\/deferred/)
  for (const { manifests } of built) {
    const mounts = podsOf(manifests).flatMap(({ pod }) =>
      pod.containers.flatMap(({ volumeMounts = [] }) => volumeMounts)
    )
    t.ok(mounts.some(({ name, mountPath }) => name === 'spool' && mountPath === '/spool'))
  }
})
