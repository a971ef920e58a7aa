# Removes Secrets and ConfigMaps that are named by their content and that neither a manifest nor a pod names any more.
# They may be of an earlier config, or come from a snapshot. Sourced by handover.sh, so it has no shebang.
prune() {
  volumes=$(kube_system get pods \
    --output=jsonpath='{range .items[*].spec.volumes[*]}configmap/{.configMap.name} secret/{.secret.secretName} {end}')
  objects=$(kube_system get configmaps,secrets --selector="$MOUNTED_LABEL" --output=name)
  for object in $objects; do
    case " $MOUNTED $volumes " in
      *" $object "*) ;;
      *) kube_system delete --ignore-not-found "$object" >/dev/null ;;
    esac
  done
}
