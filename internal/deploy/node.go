// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"
	"path"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// hostDirectory is one that agent or proxy needs, at the same path as on the host.
type hostDirectory struct {
	name, path string
	// write: the agent installs something there. Others are read, and mounts in them come and go while the pod runs, so
	// they must propagate from the host.
	write bool
}

func (d hostDirectory) mount() corev1.VolumeMount {
	m := corev1.VolumeMount{Name: d.name, MountPath: d.path}
	if !d.write {
		m.ReadOnly, m.MountPropagation = true, new(corev1.MountPropagationHostToContainer)
	}
	return m
}

// volume makes the directory where it is missing: a runtime that isn't this node's has none, and must not keep the pod
// from starting.
func (d hostDirectory) volume() corev1.Volume {
	return corev1.Volume{Name: d.name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
		Path: d.path, Type: new(corev1.HostPathDirectoryOrCreate),
	}}}
}

// host is where a node keeps what agent and proxy need, and the agent's flags that say so.
type host struct {
	netns hostDirectory
	// agent are the directories that only the agent needs.
	agent []hostDirectory
	flags []string
}

func hostOf(spec *v1alpha1.HostPaths) host {
	p := v1alpha1.HostPaths{}
	if spec != nil {
		p = *spec
	}
	var h host
	set := func(flag string, own v1alpha1.HostPath, def string) string {
		if own == "" {
			return def
		}
		h.flags = append(h.flags, "--"+flag+"="+string(own))
		return string(own)
	}
	h.netns = hostDirectory{name: "netns", path: set("netns-dir", p.NetnsDir, names.NetnsDir)}
	h.agent = []hostDirectory{
		{name: "cni-bin", path: set("cni-bin-dir", p.CNIBinDir, names.CNIBinDir), write: true},
		{name: "cni-conf", path: set("cni-conf-dir", p.CNIConfDir, names.CNIConfDir), write: true},
	}
	// A runtime's directory is mounted, not its socket, because a restart replaces the socket.
	if socket := set("cri-socket", p.RuntimeSocket, ""); socket != "" {
		h.agent = append(h.agent, hostDirectory{name: "runtime", path: path.Dir(socket)})
		return h
	}
	for i, socket := range names.RuntimeSockets() {
		h.agent = append(h.agent, hostDirectory{name: fmt.Sprintf("runtime-%d", i), path: path.Dir(socket)})
	}
	return h
}

// add mounts the directory of SPIRE's admin socket into the agent, not the socket, because a restart replaces it.
func (h *host) add(name, socket string) {
	h.agent = append(h.agent, hostDirectory{name: name, path: path.Dir(socket)})
	h.flags = append(h.flags, "--spire-admin-socket="+socket)
}

const (
	// listenerDrainSeconds is for how long connections live on whose listener goes, as that of a pod that isn't captured
	// any more.
	listenerDrainSeconds = 20
	// nodeGraceSeconds is what an agent has to hand over its pods, beside the time in which the proxy drains.
	nodeGraceSeconds = 30
)

// NodeLabels select the pods of the node DaemonSet.
func NodeLabels() map[string]string {
	return map[string]string{
		"app.kubernetes.io/name": "fairway",
		names.LabelComponent:     names.ComponentNode,
	}
}

// IsNode tells whether labels are those of a node proxy's pod.
func IsNode(have map[string]string) bool {
	for k, v := range NodeLabels() {
		if have[k] != v {
			return false
		}
	}
	return true
}

// Node is the DaemonSet of agent and node proxy. It shares the host's network, because its Envoy makes listeners and
// connections inside the network namespaces of the node's pods.
func Node(mesh *v1alpha1.Mesh, c Control) *appsv1.DaemonSet {
	spec := v1alpha1.Node{}
	if mesh.Spec.Node != nil {
		spec = *mesh.Spec.Node.DeepCopy()
	}
	tolerations := spec.Tolerations
	if tolerations == nil {
		tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}
	drain := int64(mesh.Spec.NodeDrainTimeout().Seconds())
	host := hostOf(spec.Host)
	if c.SPIRE != nil {
		host.add("spire", string(c.SPIRE.AdminSocket))
	}
	own := merged(NodeLabels(), map[string]string{names.LabelManagedBy: names.ManagedBy})
	return &appsv1.DaemonSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"},
		ObjectMeta: metav1.ObjectMeta{Name: names.NodeDaemonSet, Namespace: c.Namespace, Labels: own},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: NodeLabels()},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
				Type: appsv1.RollingUpdateDaemonSetStrategyType,
				// The next proxy of a node serves before the one before is told to go.
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{
					MaxSurge: surge(spec.MaxSurge), MaxUnavailable: new(intstr.FromInt32(0)),
				},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{
					Labels:      merged(own, map[string]string{names.LabelMesh: names.MeshDisabled}),
					Annotations: podAnnotations(containerAgent, names.PortMetrics, corev1.URISchemeHTTPS),
				},
				Spec: corev1.PodSpec{
					ServiceAccountName:            names.NodeServiceAccount,
					ImagePullSecrets:              c.PullSecrets,
					HostNetwork:                   true,
					DNSPolicy:                     corev1.DNSClusterFirstWithHostNet,
					PriorityClassName:             "system-node-critical",
					NodeSelector:                  merged(map[string]string{corev1.LabelOSStable: "linux"}, spec.NodeSelector),
					Tolerations:                   tolerations,
					TerminationGracePeriodSeconds: new(drain + nodeGraceSeconds),
					ReadinessGates:                []corev1.PodReadinessGate{{ConditionType: v1alpha1.PodConditionServing}},
					SecurityContext: &corev1.PodSecurityContext{
						SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
						SELinuxOptions: seLinuxOf(spec.SELinuxType),
					},
					// Envoy is a sidecar of the agent's, since Kubernetes ends sidecars when all else of their pod has ended: not
					// before the agent has drained it.
					InitContainers: []corev1.Container{nodeBootstrap(c), nodeEnvoy(spec, host, c)},
					Containers:     []corev1.Container{nodeAgent(spec, host, drain, c)},
					Volumes:        nodeVolumes(host, drain, c),
				},
			},
		},
	}
}

func seLinuxOf(kind string) *corev1.SELinuxOptions {
	if kind == "" {
		return nil
	}
	return &corev1.SELinuxOptions{Type: kind}
}

// nodeSecurity is root with the capabilities to enter a network namespace (SYS_ADMIN) and to program it (NET_ADMIN).
func nodeSecurity() *corev1.SecurityContext {
	s := restricted()
	s.RunAsUser, s.RunAsGroup, s.RunAsNonRoot = new(int64(0)), new(int64(0)), new(false)
	s.Capabilities.Add = []corev1.Capability{"NET_ADMIN", "SYS_ADMIN"}
	return s
}

func nodeBootstrap(c Control) corev1.Container {
	s := nodeSecurity()
	s.Capabilities.Add = nil
	return corev1.Container{
		Name:                     containerBootstrap,
		Image:                    c.Image,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Args:                     []string{"agent", "bootstrap", "node", memoryFlag, "--node-name=$(NODE_NAME)"},
		Env:                      []corev1.EnvVar{fieldEnv("NODE_NAME", "spec.nodeName"), memoryEnv()},
		Resources:                resources("10m", "32Mi", "128Mi"),
		VolumeMounts:             []corev1.VolumeMount{runMount(), nodeMount()},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          s,
	}
}

// nodeAgent declares no ports: on the node's network these would be the node's, of which Kubernetes gives each to one
// pod. Nor has it probes, see v1alpha1.PodConditionServing.
func nodeAgent(spec v1alpha1.Node, host host, drain int64, c Control) corev1.Container {
	mounts := append(c.agentMounts(), nodeMount(), host.netns.mount())
	for _, d := range host.agent {
		mounts = append(mounts, d.mount())
	}
	return corev1.Container{
		Name:            containerAgent,
		Image:           c.Image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Args: slices.Concat([]string{"agent", "node", "--node-name=$(NODE_NAME)"}, c.operatorFlags(), host.flags,
			[]string{fmt.Sprintf("--drain-timeout=%ds", drain)}),
		Env: []corev1.EnvVar{
			fieldEnv("NODE_NAME", "spec.nodeName"),
			fieldEnv("POD_NAME", "metadata.name"),
			fieldEnv("POD_NAMESPACE", "metadata.namespace"),
			fieldEnv("POD_UID", "metadata.uid"),
		},
		Resources:                orDefault(spec.AgentResources, resources("20m", "64Mi", "512Mi")),
		VolumeMounts:             mounts,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          nodeSecurity(),
	}
}

func nodeEnvoy(spec v1alpha1.Node, host host, c Control) corev1.Container {
	return corev1.Container{
		Name:                     containerEnvoy,
		RestartPolicy:            new(corev1.ContainerRestartPolicyAlways),
		Image:                    c.EnvoyImage,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Args:                     envoyArgs(spec.LogLevel, spec.Concurrency, listenerDrainSeconds),
		Resources:                orDefault(spec.Resources, resources("50m", "128Mi", "2Gi")),
		VolumeMounts:             []corev1.VolumeMount{runMount(), host.netns.mount()},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          nodeSecurity(),
	}
}

// nodeDirectory is what agents of a node share, one after the other, and with the CNI plugin, which runs on the host.
var nodeDirectory = hostDirectory{name: "node", path: names.NodeDir, write: true}

func nodeMount() corev1.VolumeMount { return nodeDirectory.mount() }

func nodeVolumes(host host, drain int64, c Control) []corev1.Volume {
	out := append([]corev1.Volume{runVolume()}, c.agentVolumes(names.TrustBundleConfigMap, nodeTokenSeconds(drain))...)
	out = append(out, nodeDirectory.volume(), host.netns.volume())
	for _, d := range host.agent {
		out = append(out, d.volume())
	}
	return out
}

// nodeTokenSeconds is the lifetime of a node agent's token. Kubelet renews it after 80% of that or a day, but not that
// of a pod that is told to go, and the agent needs it as long as its proxy drains.
func nodeTokenSeconds(drain int64) int64 {
	const day = 24 * 60 * 60
	needs := drain + 2*nodeGraceSeconds
	return max(tokenLifetimeSeconds, min(5*needs, day+needs))
}
