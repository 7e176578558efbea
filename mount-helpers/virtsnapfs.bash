# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# Completes virtsnapfs(1) in bash. Options and their values are what --help of that very program
# says, so that there is no list here that could be another one. Needs nothing of bash-completion,
# which only finds this file.

# Sets names (as in "linger=", "ro"), long (as in "--wait") and values[NAME] (as in "raw|qcow2").
_virtsnapfs_learn() {
    local line word is_named=''
    names=() long=() values=()
    while IFS= read -r line; do
        if [[ $line == 'Options, as -o'* ]]; then
            is_named=yes
        elif [[ -n $is_named && $line =~ ^'  '[a-z] ]]; then
            line=${line:2}
            for word in ${line%%  *}; do # what it means stands behind two blanks
                [[ $word == *=* ]] || values[$word]=''
                [[ $word != *=* ]] || values[${word%%=*}]=${word#*=}
                names+=("${word%%=*}${word//[!=]/}")
            done
        elif [[ -z $is_named && $line == '  '* ]]; then
            for word in $line; do
                word=${word%%[,:;.]*}
                if [[ $word =~ ^--[a-z_]+$ && " ${long[*]} " != *" $word "* ]]; then
                    long+=("$word")
                fi
            done
        fi
    done < <("$1" --help 2>/dev/null </dev/null)
    for word in "${names[@]}"; do
        long+=("--$word")
    done
}

# Sets words: those up to the cursor, put together again where bash took them apart (COMP_WORDBREAKS).
_virtsnapfs_split() {
    local line=${COMP_LINE:0:COMP_POINT} piece
    words=()
    for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ $line == [[:blank:]]* || ${#words[@]} == 0 ]]; then
            line=${line#"${line%%[![:blank:]]*}"}
            words+=('')
        fi
        [[ $line == "$piece"* ]] || piece=$line # the cursor stands within it
        words[-1]+=$piece
        line=${line:${#piece}}
    done
}

# _virtsnapfs_offer PREFIX CANDIDATE...: those that go on as the word does. bash puts them in place
# of what stands behind the last break in the word.
_virtsnapfs_offer() {
    local prefix=$1 candidate done_part=${words[-1]}
    shift
    done_part=${done_part%"${done_part##*["${COMP_WORDBREAKS//[!=:]/}"]}"}
    [[ $COMP_WORDBREAKS == *[=:]* ]] || done_part=''
    for candidate; do
        candidate=$prefix$candidate
        [[ $candidate != "${words[-1]}"* ]] || COMPREPLY+=("${candidate#"$done_part"}")
    done
    # The cursor stays where a value has to follow.
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

# _virtsnapfs_folders PREFIX PATH
_virtsnapfs_folders() {
    local found
    mapfile -t found < <(compgen -d -- "$2")
    compopt -o filenames 2>/dev/null
    _virtsnapfs_offer "$1" "${found[@]}"
}

# _virtsnapfs_value PREFIX NAME TEXT
_virtsnapfs_value() {
    local known
    [[ -n $2 ]] || return 0
    case ${values[$2]:-} in
    DIR) _virtsnapfs_folders "$1" "$3" ;;
    *'|'*)
        IFS='|' read -ra known <<<"${values[$2]}"
        _virtsnapfs_offer "$1" "${known[@]}"
        ;;
    esac
}

# _virtsnapfs_list PREFIX LIST: of -o; the words in front of the last comma stay.
_virtsnapfs_list() {
    local last=${2##*,}
    local front=$1${2%"$last"}
    if [[ $last == *=* ]]; then
        _virtsnapfs_value "$front${last%%=*}=" "${last%%=*}" "${last#*=}"
    else
        _virtsnapfs_offer "$front" "${names[@]}"
    fi
}

_virtsnapfs_source() {
    if [[ $1 == dir:* ]]; then
        _virtsnapfs_folders dir: "${1#dir:}"
    else
        _virtsnapfs_offer '' qemu:///system qemu:///session dir:
    fi
}

# Mounts of ours; any folder where there is none that begins so (--wait is asked after the unmount).
_virtsnapfs_mounts() {
    local path type found=()
    while read -r path type; do
        [[ $type != fuse.virtsnapfs ]] || found+=("$(printf %b "${path//\\/\\0}")")
    done < <(sed -n 's/^\([^ ]* \)\{4\}\([^ ]*\) .* - \([^ ]*\) .*/\2 \3/p' /proc/self/mountinfo)
    compopt -o filenames 2>/dev/null
    _virtsnapfs_offer '' "${found[@]}"
    [[ ${#COMPREPLY[@]} != 0 ]] || _virtsnapfs_folders '' "$1"
}

# What is no option of those in front of the cursor, and the option whose value comes next.
_virtsnapfs_read_front() {
    local word name is_over=''
    operands=0 errand='' wants=''
    for word in "${words[@]:1:${#words[@]}-2}"; do
        name=${word#--}
        name=${name//-/_}
        if [[ -n $wants ]]; then
            wants=''
        elif [[ -n $is_over || $word != -?* ]]; then
            operands=$((operands + 1))
        elif [[ $word == -- ]]; then
            is_over=yes
        elif [[ $word == --wait || $word == --status || $word == --recover ]]; then
            errand=$word
        elif [[ $word =~ ^-[a-zA-Z]*o$ ]]; then
            wants=-o
        elif [[ $word == --* && -n ${values[$name]:-} ]]; then
            wants=$name
        fi
    done
    [[ -z $is_over ]] || wants=${wants:---}
}

_virtsnapfs() {
    local names long words operands errand wants current name
    local -A values
    COMPREPLY=()
    _virtsnapfs_learn "$1"
    _virtsnapfs_split
    _virtsnapfs_read_front
    current=${words[-1]}
    case $wants,$current in
    -o,*) _virtsnapfs_list '' "$current" ;;
    [!-]*,*) _virtsnapfs_value '' "$wants" "$current" ;;
    ,--*=*)
        name=${current%%=*} name=${name#--}
        _virtsnapfs_value "${current%%=*}=" "${name//-/_}" "${current#*=}"
        ;;
    ,--*) _virtsnapfs_offer '' "${long[@]}" ;;
    ,-o*) _virtsnapfs_list -o "${current#-o}" ;;
    ,-*) _virtsnapfs_offer '' -f -d -s -h -V -o "${long[@]}" ;;
    *)
        case $errand,$operands in
        --wait,0 | --status,0) _virtsnapfs_mounts "$current" ;;
        ,0 | --recover,0) _virtsnapfs_source "$current" ;;
        ,1) _virtsnapfs_folders '' "$current" ;;
        esac
        ;;
    esac
}
complete -F _virtsnapfs virtsnapfs
