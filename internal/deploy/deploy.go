// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package deploy says what the mesh's pods look like: from a Mesh or a Gateway and its parameters it makes the desired
// Kubernetes objects, ready for server-side apply. It is pure: it reads no cluster and writes to none.
package deploy

import (
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Names of containers and volumes of every proxy pod.
const (
	containerBootstrap = "bootstrap"
	containerAgent     = "agent"
	containerEnvoy     = "envoy"

	volumeRun   = "run"
	volumeToken = "token"
	volumeTrust = "trust-bundle"
	volumeSPIRE = "spire"
)

const (
	// nonRoot is the user of proxies that need no privilege, the one of distroless images.
	nonRoot int64 = 65532
	// tokenLifetimeSeconds of the projected token; kubelet renews it after 80% of it.
	tokenLifetimeSeconds int64 = 3600

	// pathReady is what kubelet asks of the agent (on port names.PortAgent) for readiness: the proxy has its configuration
	// and would serve.
	pathReady = "/readyz"
	// pathHealthy is what kubelet asks for liveness: the agent itself runs.
	pathHealthy = "/healthz"
	// pathDrained answers when the agent has drained its proxy.
	pathDrained = "/drained"
)

// Control says where an agent finds the operator, and which images it runs with.
type Control struct {
	// Namespace of the operator and the node proxies.
	Namespace string
	// Image of the agent; EnvoyImage of the proxy.
	Image, EnvoyImage string
	// PullSecrets by which nodes pull them, of the pods' namespace.
	PullSecrets []corev1.LocalObjectReference
	// TrustDomain of the mesh.
	TrustDomain string
	// SPIRE says where SPIRE's agents are found; nil where the operator signs.
	SPIRE *v1alpha1.SPIRECertificates
}

// operatorFlags are the flags of every agent that speaks to the operator.
func (c Control) operatorFlags() []string {
	host := names.OperatorService + "." + c.Namespace + ".svc"
	return []string{
		fmt.Sprintf("--operator=%s:%d", host, names.PortXDS),
		fmt.Sprintf("--certificates=https://%s:%d", host, names.PortCertificates),
		"--trust-domain=" + c.TrustDomain,
	}
}

// envoyArgs are Envoy's arguments. Hot restart is off: proxies are replaced by pods, and two Envoys of one network
// namespace would otherwise fight over the same abstract socket.
func envoyArgs(level v1alpha1.LogLevel, concurrency *int32, drainSeconds int64) []string {
	if level == "" {
		level = v1alpha1.DefaultLogLevel
	}
	n := v1alpha1.DefaultConcurrency
	if concurrency != nil {
		n = *concurrency
	}
	return []string{
		"-c", names.BootstrapPath,
		"--concurrency", strconv.Itoa(int(n)),
		"--log-level", string(level),
		"--drain-time-s", strconv.FormatInt(drainSeconds, 10),
		"--disable-hot-restart",
		// An access log line is there within a second; Envoy's default keeps it back for ten.
		"--file-flush-interval-msec", "1000",
	}
}

// podAnnotations of every pod with an agent, which shows the metrics of both containers.
func podAnnotations(defaultContainer string, metricsPort int, scheme corev1.URIScheme) map[string]string {
	return map[string]string{
		"kubectl.kubernetes.io/default-container": defaultContainer,
		"prometheus.io/scrape":                    "true",
		"prometheus.io/port":                      strconv.Itoa(metricsPort),
		"prometheus.io/scheme":                    strings.ToLower(string(scheme)),
		"prometheus.io/path":                      "/metrics",
	}
}

// restricted is the security context of a container without any privilege.
func restricted() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		Privileged:               new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// resources of a container. The limit of memory is far above what it needs: it keeps what goes wrong in one container
// from the rest of the node.
func resources(cpu, memory, mostMemory string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse(cpu),
			corev1.ResourceMemory: resource.MustParse(memory),
		},
		Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(mostMemory)},
	}
}

func orDefault(set *corev1.ResourceRequirements, def corev1.ResourceRequirements) corev1.ResourceRequirements {
	if set != nil {
		return *set.DeepCopy()
	}
	return def
}

// surge is how many node proxies are replaced at the same time.
func surge(set *intstr.IntOrString) *intstr.IntOrString {
	if set != nil {
		return new(*set)
	}
	return new(intstr.FromInt32(1))
}

func fieldEnv(name, fieldPath string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: fieldPath},
	}}
}

// memoryFlag tells the container that writes the proxy's bootstrap how much memory the proxy may have: its limit, or
// what the node has where there is none.
const memoryFlag = "--memory=$(ENVOY_MEMORY)"

func memoryEnv() corev1.EnvVar {
	return corev1.EnvVar{Name: "ENVOY_MEMORY", ValueFrom: &corev1.EnvVarSource{
		ResourceFieldRef: &corev1.ResourceFieldSelector{
			ContainerName: containerEnvoy, Resource: "limits.memory", Divisor: resource.MustParse("1"),
		},
	}}
}

// tokenVolume projects the token with which an agent authenticates: bound to the pod, for the mesh's audience only.
func tokenVolume(lifetimeSeconds int64) corev1.Volume {
	return corev1.Volume{Name: volumeToken, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience:          names.TokenAudience,
			ExpirationSeconds: new(lifetimeSeconds),
			Path:              path.Base(names.TokenPath),
		}}},
	}}}
}

func trustVolume(configMap string) corev1.Volume {
	return corev1.Volume{Name: volumeTrust, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: configMap},
		Items:                []corev1.KeyToPath{{Key: names.TrustBundleKey, Path: path.Base(names.TrustBundlePath)}},
	}}}
}

// agentMounts are the mounts of every agent; Envoy has the run directory only, so that it sees neither token nor
// bundle, nor a socket of SPIRE.
func (c Control) agentMounts() []corev1.VolumeMount {
	out := []corev1.VolumeMount{
		runMount(),
		{Name: volumeToken, MountPath: path.Dir(names.TokenPath), ReadOnly: true},
	}
	if c.SPIRE != nil {
		return out
	}
	return append(out, corev1.VolumeMount{Name: volumeTrust, MountPath: path.Dir(names.TrustBundlePath), ReadOnly: true})
}

// agentVolumes are what agentMounts mounts, but the run directory. Where SPIRE gives identities, it gives the trust
// bundle, too.
func (c Control) agentVolumes(configMap string, tokenSeconds int64) []corev1.Volume {
	if c.SPIRE != nil {
		return []corev1.Volume{tokenVolume(tokenSeconds)}
	}
	return []corev1.Volume{tokenVolume(tokenSeconds), trustVolume(configMap)}
}

// spireVolume has the socket of SPIRE's Workload API. Its driver mounts it into pods of any namespace, and no path of
// the host is named.
func spireVolume() corev1.Volume {
	return corev1.Volume{Name: volumeSPIRE, VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: names.SPIREDriver, ReadOnly: new(true),
	}}}
}

func runMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: volumeRun, MountPath: names.RunDir}
}

// runVolume is the pod's own, in memory: what agent and proxy say to each other goes through sockets there.
func runVolume() corev1.Volume {
	return corev1.Volume{Name: volumeRun, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse("128Mi")),
	}}}
}

func agentProbe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromInt32(names.PortAgent), Scheme: corev1.URISchemeHTTP,
		}},
		PeriodSeconds: period, FailureThreshold: failures, TimeoutSeconds: 2,
	}
}

// setProbes gives a waypoint's agent its probes. Both first ones ask every second, so that a pod is ready as soon as
// its proxy is; not before there can be an answer, because kubelet makes a Warning of each that fails. Only readiness
// waits for the operator: an agent that can't reach it is not restarted for that.
func setProbes(agent *corev1.Container) {
	agent.StartupProbe = agentProbe(pathHealthy, 1, 60)
	agent.StartupProbe.InitialDelaySeconds = 1
	agent.ReadinessProbe = agentProbe(pathReady, 1, 3)
	agent.LivenessProbe = agentProbe(pathHealthy, 10, 6)
}

// merged is the union of maps; later ones win.
func merged(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}
