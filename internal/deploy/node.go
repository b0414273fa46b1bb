// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Directories of the host that the agent needs, at the same paths as on the host.
const (
	hostCNIBin     = "/opt/cni/bin"
	hostCNIConf    = "/etc/cni/net.d"
	hostContainerd = "/run/containerd"
)

const nodeDrainSeconds = 20

// NodeLabels select the pods of the node DaemonSet.
func NodeLabels() map[string]string {
	return map[string]string{
		"app.kubernetes.io/name": "fairway",
		names.LabelComponent:     names.ComponentNode,
	}
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
	own := merged(NodeLabels(), map[string]string{names.LabelManagedBy: names.ManagedBy})
	return &appsv1.DaemonSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"},
		ObjectMeta: metav1.ObjectMeta{Name: names.NodeDaemonSet, Namespace: c.Namespace, Labels: own},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: NodeLabels()},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
				Type:          appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: new(intstr.FromInt32(1))},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{
					Labels:      merged(own, map[string]string{names.LabelMesh: names.MeshDisabled}),
					Annotations: map[string]string{"kubectl.kubernetes.io/default-container": ContainerAgent},
				},
				Spec: corev1.PodSpec{
					ServiceAccountName:            names.NodeServiceAccount,
					HostNetwork:                   true,
					DNSPolicy:                     corev1.DNSClusterFirstWithHostNet,
					PriorityClassName:             "system-node-critical",
					NodeSelector:                  merged(map[string]string{corev1.LabelOSStable: "linux"}, spec.NodeSelector),
					Tolerations:                   tolerations,
					TerminationGracePeriodSeconds: new(int64(nodeDrainSeconds + 10)),
					SecurityContext: &corev1.PodSecurityContext{
						SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
					},
					InitContainers: []corev1.Container{nodeBootstrap(c)},
					Containers:     []corev1.Container{nodeAgent(spec, c), nodeEnvoy(spec, c)},
					Volumes:        nodeVolumes(),
				},
			},
		},
	}
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
		Name:                     ContainerBootstrap,
		Image:                    c.Image,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Args:                     []string{"agent", "bootstrap", "node", "--node-name=$(NODE_NAME)"},
		Env:                      []corev1.EnvVar{fieldEnv("NODE_NAME", "spec.nodeName")},
		Resources:                requests("10m", "32Mi"),
		VolumeMounts:             []corev1.VolumeMount{runMount()},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          s,
	}
}

func nodeAgent(spec v1alpha1.Node, c Control) corev1.Container {
	agent := corev1.Container{
		Name:            ContainerAgent,
		Image:           c.Image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Args:            append([]string{"agent", "node", "--node-name=$(NODE_NAME)"}, c.operatorFlags()...),
		Env: []corev1.EnvVar{
			fieldEnv("NODE_NAME", "spec.nodeName"),
			fieldEnv("NODE_IP", "status.hostIP"),
			fieldEnv("POD_NAME", "metadata.name"),
			fieldEnv("POD_NAMESPACE", "metadata.namespace"),
		},
		Ports:                    []corev1.ContainerPort{{Name: "metrics", ContainerPort: names.PortAgent, HostPort: names.PortAgent, Protocol: corev1.ProtocolTCP}},
		Resources:                orDefault(spec.AgentResources, requests("20m", "64Mi")),
		VolumeMounts:             append(agentMounts(), nodeAgentMounts()...),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          nodeSecurity(),
	}
	setProbes(&agent)
	return agent
}

func nodeEnvoy(spec v1alpha1.Node, c Control) corev1.Container {
	return corev1.Container{
		Name:                     ContainerEnvoy,
		Image:                    c.EnvoyImage,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Args:                     envoyArgs(spec.LogLevel, spec.Concurrency, nodeDrainSeconds),
		Resources:                orDefault(spec.Resources, requests("50m", "128Mi")),
		VolumeMounts:             []corev1.VolumeMount{runMount(), netnsMount()},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          nodeSecurity(),
	}
}

// netnsMount shows pods' network namespaces. They come and go while the pod runs, so mounts must propagate from the host.
func netnsMount() corev1.VolumeMount {
	return corev1.VolumeMount{
		Name: "netns", MountPath: names.NetnsDir, ReadOnly: true,
		MountPropagation: new(corev1.MountPropagationHostToContainer),
	}
}

// nodeAgentMounts are what only the node's agent needs. containerd's directory is mounted, not its socket, because a
// restart replaces the socket; its mounts propagate, so that those of other containers aren't held busy here.
func nodeAgentMounts() []corev1.VolumeMount {
	return []corev1.VolumeMount{
		netnsMount(),
		{Name: "cni-bin", MountPath: hostCNIBin},
		{Name: "cni-conf", MountPath: hostCNIConf},
		{Name: "containerd", MountPath: hostContainerd, ReadOnly: true, MountPropagation: new(corev1.MountPropagationHostToContainer)},
	}
}

func nodeVolumes() []corev1.Volume {
	host := func(name, path string, kind corev1.HostPathType) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}}}
	}
	// The run directory is the host's, because the CNI plugin, which runs on the host, dials the agent's socket in it.
	return slices.Concat(
		[]corev1.Volume{host(volumeRun, names.RunDir, corev1.HostPathDirectoryOrCreate), tokenVolume(), trustVolume(names.TrustBundleConfigMap)},
		[]corev1.Volume{
			host("netns", names.NetnsDir, corev1.HostPathDirectoryOrCreate),
			host("cni-bin", hostCNIBin, corev1.HostPathDirectoryOrCreate),
			host("cni-conf", hostCNIConf, corev1.HostPathDirectoryOrCreate),
			host("containerd", hostContainerd, corev1.HostPathDirectory),
		})
}
