# Builds with the dev dependencies, runs without them, as a user without rights.
# The digest decides, since a tag can be moved: deploy/README.md says how both are renewed.
ARG NODE_IMAGE=node:24.18.0-bookworm-slim@sha256:6f7b03f7c2c8e2e784dcf9295400527b9b1270fd37b7e9a7285cf83b6951452d

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
COPY clients/node/package.json clients/node/
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
COPY migrations ./migrations
COPY sql ./sql
COPY page ./page
# The web apps' side and its peers are no part of the service.
RUN npm run build && rm dist/embedded-postgres.* && npm prune --omit=dev --ignore-scripts && rm -rf node_modules/msal-logout-client node_modules/@azure

FROM ${NODE_IMAGE}
ENV NODE_ENV=production ADMIN_HOST=0.0.0.0 SPOOL_DIR=/spool/deferred
WORKDIR /app
# OpenShift gives a user id of its own making and group 0, so group 0 may write here and the owner is root. The service makes
# its own folder in it, for itself alone: a volume's root may hold more (lost+found), and bears the mode that it was given.
RUN install -d -o root -g root -m 0770 /spool
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY --from=build /app/migrations ./migrations
COPY --from=build /app/sql ./sql
COPY --from=build /app/page ./page
# A number: Kubernetes cannot tell by a name that it is not root (runAsNonRoot).
USER 1000:0
VOLUME /spool
EXPOSE 3000 3001
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "const { HOST, PORT } = process.env; const host = /^(0[.]0[.]0[.]0|::)?$/.test(HOST ?? '') ? '127.0.0.1' : HOST.includes(':') ? `[${HOST}]` : HOST; const port = /^[0-9]+$/.test(PORT ?? '') ? PORT : 3000; fetch(`http://${host}:${port}/healthz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "dist/cli.js", "serve"]
